"""Images: decoding, resizing and cropping, augmentation, packed files, shards."""
