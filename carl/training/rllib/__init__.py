"""What carl puts in place of parts of RLlib; the only room that touches its private parts."""
