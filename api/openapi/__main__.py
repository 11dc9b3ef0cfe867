import sys

from api.openapi.snapshot import main

sys.exit(main(sys.argv[1:]))
