"""Networks: the layout of their parameters, their architectures, and stacks of networks that run together."""
