"""Load packs: folders of YAML and Jinja that define a labelling task with its labels, glosses, options and columns.

pack.py         which files a pack needs, and the loaded `Pack` (`pack` in a run's configuration)
pack_file.py    the keys of pack.yaml, and which contradict each other
columns.py      the names of an item's fields in a manifest (`columns` of pack.yaml)
label_names.py  when a text that is not exactly a label counts as one, in answers and in manifests
"""
