import torch

torch.set_num_threads(1)  # results are the same with more; tests run side by side
