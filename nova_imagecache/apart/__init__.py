# SPDX-License-Identifier: Apache-2.0

"""A pass in a process of its own: its host, the process, and their words."""
