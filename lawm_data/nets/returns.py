"""Lambda-returns (Sutton & Barto 2018; V_lambda of Hafner et al. 2019b)."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor | float, lambda_: float) -> Tensor:
    """V_k = r_k + gamma_k ((1 - lambda) v_{k+1} + lambda V_{k+1}), with V_T = v_T.

    reward [T, ...] earned from state k to k+1; value [T, ...] = v(s_1), ..., v(s_T); discount a number or [T, ...].
    Returns V_0 .. V_{T-1}, [T, ...].
    """
    following = value[-1]
    returns = []
    for k in reversed(range(len(reward))):
        gamma = discount[k] if isinstance(discount, Tensor) else discount
        following = reward[k] + gamma * torch.lerp(value[k], following, lambda_)
        returns.append(following)
    return torch.stack(returns[::-1])
