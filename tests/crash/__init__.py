"""The crash suite: what a run survives, layer by layer; `cd tests && python -m crash [LAYER [COUNT]]`.

A run with every kind of state is killed, starved of disk, cut off by a power loss or has its documents changed; then it
is resumed, and all that it left must equal a run that nothing happened to, bit for bit. The last layer breaks the code
on purpose: the suite must notice. Trials are forked from one process that has torch imported, with one thread.
"""

from crash.gold import Small as Small
from crash.gold import gold_recipe as gold_recipe
