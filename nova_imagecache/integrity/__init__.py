# SPDX-License-Identifier: Apache-2.0

"""Whether a base file still holds what was fetched."""
