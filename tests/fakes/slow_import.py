"""A module whose import takes long, as those of a training stack do."""

import os
import time

from scalesweep.launch.rank import die_with_command

die_with_command()
time.sleep(float(os.environ.get("SLOW_IMPORT_S", "30")))
