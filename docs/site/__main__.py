"""``make site``: builds the site from the documentation."""

import sys

from docs.site.build import main

sys.exit(main())
