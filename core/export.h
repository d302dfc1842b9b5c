// export.h - the one macro that marks what the shared library shows (everything else is hidden).
// SPDX-License-Identifier: MIT
#pragma once

#define TWEEDIE_API [[gnu::visibility("default")]]
