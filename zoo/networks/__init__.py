"""What a network is: the layout of its parameters, its architecture, and stacks of networks that run together."""
