// simt_accept.h - what each device kernel must do: its error against the reference in double as a share of its bound, at most 1
// where it is right. The kernels' tests demand it, and the planted faults must break it. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "divergence_testing.h"
#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/dsm_loss.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/mlp_divergence.h"
#include "tweedie/kernels/reference/adam_ema.h"
#include "tweedie/kernels/reference/dsm_loss.h"
#include "tweedie/kernels/reference/dsm_perturb.h"
#include "tweedie/kernels/reference/langevin_update.h"

namespace tweedie::kernels::testing {

/// |value - expected| as a share of bound; infinity for NaN.
inline double share_of(double value, double expected, double bound) {
  const double miss = std::fabs(value - expected);
  return miss <= 0 ? 0 : std::isnan(miss) ? HUGE_VAL : miss / bound;
}

/// The library's bits.
template <class Launch>
double accept_normals(Launch launch, Index rows, Index dim, std::uint64_t first = (std::uint64_t{1} << 33) + 5) {
  Matrix expected(rows, dim);
  Rng(77).normals<float>(Purpose::langevin, 9, first, expected, 3);
  Fenced<float> z(rows * dim);
  cuda::normals(launch, {77, Purpose::langevin, 9, 3, first, rows, dim, z.data()});
  const bool right = same_bits(z.values(), std::vector<float>(expected.data(), expected.data() + rows * dim));
  return right && z.intact() ? 0 : HUGE_VAL;
}

/// x' within 4 u of its terms' magnitudes.
template <class Launch>
double accept_langevin(Launch launch, Index n) {
  const Fenced x0(uniform<float>(n, 1)), z(uniform<float>(n, 2)), s(uniform<float>(n, 3));
  const float drift = .125f, noise = -.7f;
  std::vector<double> expected = converted<double>(x0);
  reference::langevin_update<double>(n, drift, noise, converted<double>(s).data(), converted<double>(z).data(), expected.data());
  Fenced<float> x = x0;
  cuda::langevin_update(launch, {n, drift, noise, s.data(), z.data(), x.data()});
  double share = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double terms = std::fabs(x0[i]) + std::fabs(drift * s[i]) + std::fabs(noise * z[i]);
    share = std::max(share, share_of(x[i], expected[i], 4 * kU * terms));
  }
  return x.intact() ? share : HUGE_VAL;
}

/// x' and m' within 4 u and 3 u of their terms' magnitudes. skew > 0: addresses that are no multiple of 16 bytes.
template <class Launch>
double accept_chain_update(Launch launch, Index n, bool with_memory, bool with_noise, Index skew = 0) {
  cuda::ChainStep step{0, 1, .9f, -.3f, .7f, .6f, .1f, -1.2f, .45f, 0};
  if (!with_memory) step.x_m = 0;
  if (!with_noise) step.x_z = 0;
  const Fenced x0(uniform<float>(n + skew, 1)), m0(uniform<float>(n + skew, 2)), f(uniform<float>(n + skew, 3)),
      z(uniform<float>(n + skew, 4));
  Fenced<float> x = x0, m = m0;
  cuda::chain_update(launch, {n, step, f.data() + skew, with_noise ? z.data() + skew : nullptr, x.data() + skew,
                              with_memory ? m.data() + skew : nullptr});
  double share = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double new_x[] = {double{step.x_x} * x0[i], double{step.x_f} * f[i], double{step.x_m} * m0[i], double{step.x_z} * z[i]};
    double new_m[] = {double{step.m_x} * x0[i], double{step.m_f} * f[i], double{step.m_m} * m0[i]}, sum = 0, terms = 0;
    for (const double term : new_x) sum += term, terms += std::fabs(term);
    const bool there = static_cast<Index>(i) >= skew;
    share = std::max(share, there ? share_of(x[i], sum, 4 * kU * terms) : share_of(x[i], x0[i], 0));
    sum = terms = 0;
    for (const double term : new_m) sum += term, terms += std::fabs(term);
    share = std::max(share, there && with_memory ? share_of(m[i], sum, 3 * kU * terms) : share_of(m[i], m0[i], 0));
  }
  return x.intact() && m.intact() ? share : HUGE_VAL;
}

/// x within 2 u of its terms' magnitudes.
template <class Launch>
double accept_perturb(Launch launch, Index batch, Index dim) {
  const Fenced x0(uniform<float>(batch * dim, 1)), eps(uniform<float>(batch * dim, 2)), sigma(uniform<float>(batch, 4));
  std::vector<double> expected(x0.size());
  reference::dsm_perturb<double>(batch, dim, converted<double>(x0).data(), converted<double>(sigma).data(),
                                 converted<double>(eps).data(), expected.data());
  Fenced<float> x(batch * dim);
  cuda::dsm_perturb(launch, {batch, dim, x0.data(), sigma.data(), eps.data(), x.data()});
  double share = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double terms = std::fabs(x0[i]) + std::fabs(sigma[i / static_cast<std::size_t>(dim)] * eps[i]);
    share = std::max(share, share_of(x[i], expected[i], 2 * kU * terms));
  }
  return x.intact() ? share : HUGE_VAL;
}

/// m, v, p, ema each within 8 u of the magnitudes of its equation's terms (kernels.h), p's share of m's and v's errors included;
/// the same p without the average.
template <class Launch>
double accept_adam(Launch launch, std::int64_t step, Index n) {
  AdamStep o;
  o.weight_decay = .1, o.ema_decay = .99, o.gradient_scale = .3, o.step = step;
  const Fenced g(uniform<float>(n, 1)), p0(uniform<float>(n, 2)), m0(uniform<float>(n, 3)), e0(uniform<float>(n, 4));
  Fenced v0(uniform<float>(n, 5));
  for (std::size_t i = 0; i < v0.size(); ++i) v0[i] = .01f + v0[i] * v0[i];
  std::vector<double> p = converted<double>(p0), m = converted<double>(m0), v = converted<double>(v0), e = converted<double>(e0);
  reference::adam_ema<double>(o, n, converted<double>(g).data(), p.data(), m.data(), v.data(), e.data());
  const double t = static_cast<double>(step), c1 = 1 - std::pow(o.beta1, t), c2 = 1 - std::pow(o.beta2, t);
  Fenced<float> fp = p0, fm = m0, fv = v0, fe = e0, without = p0, wm = m0, wv = v0;
  cuda::adam_ema(launch, o, n, g.data(), fp.data(), fm.data(), fv.data(), fe.data());
  cuda::adam_ema(launch, o, n, g.data(), without.data(), wm.data(), wv.data(), nullptr);
  const bool intact = fp.intact() && fm.intact() && fv.intact() && fe.intact() && without.intact();
  double share = intact && same_bits(fp.values(), without.values()) ? 0 : HUGE_VAL;
  for (std::size_t i = 0; i < fp.size(); ++i) {
    const double scaled = std::fabs(o.gradient_scale * g[i]), before = std::fabs(p0[i]);
    const double m_terms = std::fabs(m0[i]) + (1 - o.beta1) * (scaled + std::fabs(m0[i]));
    const double v_terms = v0[i] + (1 - o.beta2) * (scaled * scaled + v0[i]);
    const double scale = o.learning_rate / c1 / (std::sqrt(v[i] / c2) + o.epsilon), update = std::fabs(scale * m[i]);
    const double p_terms =
        before + o.learning_rate * o.weight_decay * before + update + scale * m_terms + update * v_terms / v[i] / 2;
    const double ema_terms = std::fabs(e0[i]) + (1 - o.ema_decay) * (std::fabs(e0[i]) + p_terms);
    share = std::max({share, share_of(fm[i], m[i], 8 * kU * m_terms), share_of(fv[i], v[i], 8 * kU * v_terms),
                      share_of(fp[i], p[i], 8 * kU * p_terms), share_of(fe[i], e[i], 8 * kU * ema_terms)});
  }
  return share;
}

/// loss within 32 u of itself, du within 4 u of each number (dsm_loss.h).
template <class Launch>
double accept_dsm_loss(Launch launch, Index batch, Index dim, bool weighted, double* loss_bits = nullptr) {
  const Fenced u(uniform<float>(batch * dim, 1)), eps(uniform<float>(batch * dim, 2));
  Fenced weight(uniform<float>(batch, 3));
  for (std::size_t b = 0; b < weight.size(); ++b) weight[b] = .1f + weight[b] * weight[b];
  std::vector<double> expected(u.size());
  const std::vector<double> wide_weight = converted<double>(weight);
  const double expected_loss = reference::dsm_loss<double>(batch, dim, converted<double>(u).data(), converted<double>(eps).data(),
                                                           weighted ? wide_weight.data() : nullptr, expected.data());
  Fenced<float> du(batch * dim), partial(cuda::dsm_loss_chunks(batch, dim));
  double loss = kNaN<double>;
  cuda::dsm_loss(launch, {batch, dim, u.data(), eps.data(), weighted ? weight.data() : nullptr, du.data(), partial.data()},
                 &loss);
  if (loss_bits != nullptr) *loss_bits = loss;
  double share = du.intact() && partial.intact() ? share_of(loss, expected_loss, 32 * kU * expected_loss) : HUGE_VAL;
  for (std::size_t i = 0; i < du.size(); ++i) {
    share = std::max(share, share_of(du[i], expected[i], 4.01 * kU * std::fabs(expected[i])));
  }
  return share;
}

inline constexpr Accuracy kFp32{0, 1}, kTf32{0x1p-10 + 0x1p-22, .125}, kTf32x3{0x3.01p-22, .375}, kBf16x3{0x3.04p-16, .375},
    kBf16{0x1p-7 + 0x1p-16, .125, .5, 0x1p-120, 0x1.01p-12};

inline Accuracy accuracy_in(Precision precision) {
  return precision == Precision::tf32   ? kTf32
         : precision == Precision::fp32 ? kTf32x3
         : precision == Precision::bf16 ? kBf16
                                        : kBf16x3;
}

/// run(launch, input) within mlp_testing.h's bounds: 0, or how far beyond them. by_row: a level for each row, weights at odd
/// addresses.
template <class Launch, class Run>
double accept_mlp_forward(Launch launch, Index batch, const std::vector<int>& sizes, bool by_row, Accuracy accuracy, Run run,
                          std::vector<float>* bits = nullptr) {
  const TestNet t(sizes, 3, by_row ? 1 : 0);
  const Fenced x(uniform<float>(batch * sizes[0], 7));
  std::vector<int> level(static_cast<std::size_t>(batch), 1);
  for (std::size_t b = 0; by_row && b < level.size(); ++b) level[b] = static_cast<int>(b % 3);
  const Fenced fenced_level(level);
  Fenced<float> out(batch * sizes.back());
  run(launch, cuda::MlpForwardInput{t.net, batch, x.data(), by_row ? fenced_level.data() : nullptr, 1, out.data()});
  if (bits != nullptr) *bits = out.values();
  return out.intact() ? beyond_bound(t, batch, x.data(), level, out.values(), accuracy) : HUGE_VAL;
}

/// The rows of an mlp_divergence and where its results go; the first biases by min(b, levels - 1) or a level for each row.
struct DivergenceRows {
  DivergenceRows(const TestNetD& t, Index batch, bool with_probe, bool with_level)
      : x(uniform<double>(batch * t.net.layer[0].in, 71)),
        probe(uniform<double>(with_probe ? batch * t.net.layer[0].in : 0, 72)),
        out(batch * t.net.layer[0].in),
        second(with_probe ? batch * t.net.layer[0].in : batch),
        level(with_level ? batch : 0) {
    for (std::size_t b = 0; b < level.size(); ++b)
      level[b] = static_cast<int>((b * 7 + 2) % static_cast<std::size_t>(t.net.levels));
    input = {t.net,
             batch,
             x.data(),
             with_level ? level.data() : nullptr,
             with_probe ? probe.data() : nullptr,
             out.data(),
             with_probe ? second.data() : nullptr,
             with_probe ? nullptr : second.data()};
  }

  /// The greatest error as a share of its bound.
  double share(const DivergenceReference& reference) const {
    return out.intact() && second.intact() ? reference.worst(out.values(), second.values()) : HUGE_VAL;
  }
  std::vector<double> all() const {
    std::vector<double> both = out.values(), more = second.values();
    both.insert(both.end(), more.begin(), more.end());
    return both;
  }
  void forget() {
    for (Fenced<double>* result : {&out, &second}) std::fill_n(result->data(), result->size(), kNaN<double>);
  }

  Fenced<double> x, probe, out, second;
  Fenced<int> level;
  cuda::MlpDivergenceInput input;
};

}  // namespace tweedie::kernels::testing
