# SPDX-License-Identifier: Apache-2.0

"""Configuration of the documentation."""

extensions = [
    'cliff.sphinxext',
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]

project = 'nova_imagecache'
author = 'The nova_imagecache developers'
# The theme would take the name of the distribution, with a hyphen.
openstackdocs_auto_name = False

html_theme = 'openstackdocs'
# No counting of visitors, and no badge of a release series.
html_theme_options = {'analytics_tracking_code': '', 'display_badge': False}
pygments_style = 'native'

# Not "This command is provided by the ... plugin".
autoprogram_cliff_app_dist_name = 'nova-imagecache'

# A default is shown as the code has it, and not as an object's address.
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
