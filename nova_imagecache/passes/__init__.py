# SPDX-License-Identifier: Apache-2.0

"""A pass: it looks, decides, acts and reports."""
