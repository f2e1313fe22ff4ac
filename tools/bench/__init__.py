"""The measurements behind `hvproto bench`: what each thing costs, against its yardstick, in one interleaved run."""
