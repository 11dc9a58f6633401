"""Reading the user's own files: pictures, sounds, folders, COCO, shards."""
