// eigen_solvers.h - Eigen's Cholesky and orthogonal factorisations and eigenvalue solver, under the namespace that eigen.h chose.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/eigen.h"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
