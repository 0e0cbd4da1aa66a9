# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of a base file, and what follows from it."""
