#include <algorithm>
#include <cmath>

#include "base/atomic_output.h"
#include "report.h"

// Small line charts as SVG text.

namespace atom::cli {
namespace {

constexpr double kWidth = 720, kHeight = 300, kLeft = 64, kRight = 190, kTop = 34, kBottom = 46;
constexpr const char* kColors[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e",
                                   "#17becf", "#7f7f7f", "#8c564b", "#e377c2", "#bcbd22"};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

/// The largest of 1, 2 and 5 times a power of ten that divides `range` into at least four steps.
double step_of(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range / 4)));
  for (const double factor : {5.0, 2.0}) {
    if (power * factor <= range / 4) return power * factor;
  }
  return power;
}

class PanelWriter {
 public:
  PanelWriter(const Panel& panel, double offset) : panel_(panel), offset_(offset) {
    for (const Curve& curve : panel.curves) {
      xs_.insert(xs_.end(), curve.x.begin(), curve.x.end());
      for (const double y : curve.y) top_ = std::max(top_, y);
    }
    std::sort(xs_.begin(), xs_.end());
    xs_.erase(std::unique(xs_.begin(), xs_.end()), xs_.end());
    step_ = step_of(top_);
    top_ = std::ceil(top_ / step_) * step_;
  }

  std::string text(const std::string& x_label, const std::string& y_label) {
    add("<text x='{:.1f}' y='{:.1f}' font-weight='bold'>{}</text>\n", kLeft, offset_ + 20,
        escape(panel_.title));
    axes(x_label, y_label);
    for (size_t i = 0; i < panel_.curves.size(); ++i) curve(i);
    return std::move(out_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    out_ += fmt::format(format, std::forward<Args>(args)...);
  }

  double x(double value) const {
    const double low = std::log2(xs_.front()), high = std::log2(xs_.back());
    const double share = high > low ? (std::log2(value) - low) / (high - low) : 0.5;
    return kLeft + share * (kWidth - kLeft - kRight);
  }
  double y(double value) const { return offset_ + kTop + (1 - value / top_) * (kHeight - kTop - kBottom); }

  void axes(const std::string& x_label, const std::string& y_label) {
    const double right = kWidth - kRight, bottom = y(0);
    for (double v = 0; v <= top_ + step_ / 2; v += step_) {
      add("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='#e4e4e4'/>\n", kLeft, y(v), right,
          y(v));
      add("<text x='{:.1f}' y='{:.1f}' text-anchor='end'>{:.3g}</text>\n", kLeft - 8, y(v) + 4, v);
    }
    double last = -1e9;
    for (const double v : xs_) {
      // Labels that would overlap are left out.
      if (x(v) - last < 34) continue;
      last = x(v);
      add("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>{:.6g}</text>\n", x(v), bottom + 16, v);
    }
    add("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='#333'/>\n", kLeft, bottom, right,
        bottom);
    add("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='#333' stroke-dasharray='4 4'/>\n",
        kLeft, y(1), right, y(1));
    add("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>\n", (kLeft + right) / 2, bottom + 36,
        escape(x_label));
    add("<text transform='translate(16 {:.1f}) rotate(-90)' text-anchor='middle'>{}</text>\n",
        (y(top_) + bottom) / 2, escape(y_label));
  }

  void curve(size_t i) {
    const Curve& curve = panel_.curves[i];
    const char* color = kColors[i % std::size(kColors)];
    std::string points;
    for (size_t j = 0; j < curve.x.size(); ++j) {
      points += fmt::format("{:.1f},{:.1f} ", x(curve.x[j]), y(curve.y[j]));
      add("<circle cx='{:.1f}' cy='{:.1f}' r='3' fill='{}'/>\n", x(curve.x[j]), y(curve.y[j]), color);
    }
    add("<polyline points='{}' fill='none' stroke='{}' stroke-width='2'/>\n", points, color);
    const double at = offset_ + kTop + 12 + 18 * static_cast<double>(i), left = kWidth - kRight + 14;
    add("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='2'/>\n", left,
        at - 4, left + 18, at - 4, color);
    add("<text x='{:.1f}' y='{:.1f}'>{}</text>\n", left + 24, at, escape(curve.name));
  }

  const Panel& panel_;
  double offset_;
  double top_ = 1.2;
  double step_ = 1;
  std::vector<double> xs_;
  std::string out_;
};

}  // namespace

void add_points(Panel& panel, double x, const std::vector<Timed>& timed, std::string_view baseline) {
  const Timed* base = find(timed, baseline);
  if (base == nullptr) return;
  for (const Timed& t : timed) {
    auto curve = std::find_if(panel.curves.begin(), panel.curves.end(),
                              [&](const Curve& c) { return c.name == t.what.name; });
    if (curve == panel.curves.end()) curve = panel.curves.insert(curve, Curve{t.what.name, {}, {}});
    curve->x.push_back(x);
    curve->y.push_back(base->seconds / t.seconds);
  }
}

void write_plot(const std::filesystem::path& path, const std::string& x_label, const std::string& y_label,
                const std::vector<Panel>& panels) {
  const double height = kHeight * static_cast<double>(panels.size());
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0:.0f}' height='{1:.0f}' viewBox='0 0 {0:.0f} "
      "{1:.0f}' "
      "font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n",
      kWidth, height);
  double offset = 0;
  for (const Panel& panel : panels) {
    svg += PanelWriter(panel, offset).text(x_label, y_label);
    offset += kHeight;
  }
  write_file(path, svg + "</svg>\n");
}

}  // namespace atom::cli
