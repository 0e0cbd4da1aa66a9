# SPDX-License-Identifier: Apache-2.0

"""A real Nova, with our driver in it, on this machine alone."""
