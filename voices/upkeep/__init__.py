"""What an operator does with a database of voices: embed anew, back up, hand over, enrol many."""
