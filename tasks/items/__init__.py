"""From a manifest to samples: reading, checking, images, OCR, duplicates."""
