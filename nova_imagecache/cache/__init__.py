# SPDX-License-Identifier: Apache-2.0

"""The directory of base files: what is in it, and changing it safely."""
