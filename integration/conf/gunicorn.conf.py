# SPDX-License-Identifier: Apache-2.0

"""For gunicorn, which has to start without arguments: Nova reads them."""

import os

wsgi_app = os.environ['STACK_APPLICATION']
bind = os.environ['STACK_ADDRESS']
worker_class = 'gthread'
threads = 4
timeout = 300
