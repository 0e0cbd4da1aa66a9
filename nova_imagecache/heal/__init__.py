# SPDX-License-Identifier: Apache-2.0

"""Putting good data in the place of bad blocks."""
