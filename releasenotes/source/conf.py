# SPDX-License-Identifier: Apache-2.0

"""Configuration of the release notes."""

extensions = [
    'openstackdocstheme',
    'reno.sphinxext',
]

project = 'nova_imagecache'
author = 'The nova_imagecache developers'
# The theme would take the name of the distribution, with a hyphen.
openstackdocs_auto_name = False
# They are of every version.
openstackdocs_auto_version = False

html_theme = 'openstackdocs'
# No counting of visitors, and no badge of a release series.
html_theme_options = {'analytics_tracking_code': '', 'display_badge': False}
pygments_style = 'native'
