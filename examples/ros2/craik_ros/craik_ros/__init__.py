"""A planner of craik's as a node of ROS 2."""
