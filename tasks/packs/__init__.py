"""What a labelling task is: label set, glosses, options, columns. A pack is a folder of YAML and Jinja.

pack.py       which files a pack needs, and what the rest of the code knows of it (`pack` in a run's configuration)
pack_file.py  which keys pack.yaml may have, and what contradicts what
columns.py    what a manifest calls an item's fields (`columns` of pack.yaml)
"""
