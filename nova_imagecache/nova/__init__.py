# SPDX-License-Identifier: Apache-2.0

"""What runs inside nova-compute. Nothing else here imports Nova."""
