"""Text, sequences and trees: words, vocabulary, treebanks, word vectors, batches."""
