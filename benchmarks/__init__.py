"""How fast sat_keras is, measured side by side with what it is compared with."""
