# SPDX-License-Identifier: Apache-2.0

"""The reading process, whole: what is read, how, and what that gives."""
