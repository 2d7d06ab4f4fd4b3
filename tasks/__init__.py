"""What labelstill does: plain typed functions and small classes, free of Prefect."""
