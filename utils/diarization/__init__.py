"""Who spoke when: from a recording of several people to the turns of each."""
