# SPDX-License-Identifier: Apache-2.0

"""Whole caches, as releases have left them: their records without the files.

A cache is of the files of :mod:`tests.node.caches.inventory`, and is made by
``python -m tests.node.caches.make NAME``.
"""
