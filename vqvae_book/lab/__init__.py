"""The lab: a page on which the models run, in the reader's browser.

`lab` puts it into a chapter; `write_files` makes what the site serves for it from the
weights that the library ships; the scripts lie beside them.
"""

from .lab import STATIONS as STATIONS
from .lab import lab as lab
