"""Start from data alone: find out what a file or folder holds, and write a pack and a run.yaml for it.

discover.py       which files are read, and as what: manifests, a folder per label, data sets of other programs
conversions.py    how rows of other programs become items: conversations, annotations, prompts with an extra input
columns.py        which column is the id, the text, the image and the label
image_folder.py   in which folder image names are looked up, and when names are matched by their last part
data.py           the items with their columns and images; a new manifest where intake cannot read them as they stand
grouping.py       which tasks the items belong to: those of a known pack, or by how their texts begin
instructions.py   what texts contain besides the item: a role sentence, a list of labels, a closing request
starter.py        the steps, what is said about them, and how many folds the items allow
starter_files.py  the text of pack.yaml and run.yaml, and the language of the prompts
"""
