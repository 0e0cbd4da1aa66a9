# SPDX-License-Identifier: Apache-2.0

"""Independent ways to learn who uses a base file."""
