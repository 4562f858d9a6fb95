// The report page and the results object.

#include <gtest/gtest.h>
#include <zlib.h>

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::train {
namespace {

using test::expect_error;

bool has(const std::string& s, const std::string& part) { return s.find(part) != std::string::npos; }
int count(const std::string& s, const std::string& part) {
  int n = 0;
  for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + part.size())) ++n;
  return n;
}

// Every element that is opened is closed, in order: enough of a parser for what we write.
void expect_balanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = html.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" >", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta" || name == "img" || name == "br") continue;
    if (tag[0] != '/') {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << tag;
    ASSERT_EQ(open.back(), name) << html.substr(at > 80 ? at - 80 : 0, 120);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty()) << open.back();
}

Report sample() {
  Report r;
  r.title = "LeNet <on> \"Fashion\" & more";
  r.summary = "it's <b>bold</b>";
  r.figures = {{"Test accuracy", "91.2 %"}};
  r.settings = {{"optimizer", "Adam<script>alert(1)</script>"}};
  r.machine = machine();
  r.charts = {
      {"Loss", "epoch", "loss (nats)", {{"training", {0.9, 0.5, 0.4}}, {"validation", {0.8, std::nan(""), 0.5}}}}};
  r.classes = {"T-shirt/top", "Shirt & <tie>"};
  r.confusion = ConfusionMatrix::from_counts({8, 2, 1, 9});
  r.mistakes = {{full({4, 4}, 1.0), 0, 1, 0.97}, {tensor(std::vector<uint8_t>(12, 200), {3, 2, 2}), 1, 0, 0.9}};
  return r;
}

TEST(Report, WholeEscapedAndSelfContained) {
  const std::string html = to_html(sample());
  EXPECT_TRUE(has(html, "<title>LeNet &lt;on&gt; &quot;Fashion&quot; &amp; more</title>"));
  EXPECT_TRUE(has(html, "it&#39;s &lt;b&gt;bold&lt;/b&gt;"));
  EXPECT_TRUE(has(html, "Shirt &amp; &lt;tie&gt;"));
  EXPECT_FALSE(has(html, "<script"));
  EXPECT_FALSE(has(html, "http:"));
  EXPECT_FALSE(has(html, "https:"));
  EXPECT_FALSE(has(html, "url("));
  EXPECT_TRUE(has(html, "prefers-color-scheme: dark"));
  EXPECT_EQ(count(html, "alt=\""), 2);
  EXPECT_EQ(count(html, "data:image/png;base64,iVBORw0KGgo"), 2);
  EXPECT_TRUE(has(html, "loss (nats)"));
  EXPECT_TRUE(has(html, "title=\"T-shirt/top predicted as Shirt &amp; &lt;tie&gt;: 2 of 10 (20.0\u00a0%)\""));
  EXPECT_TRUE(has(html, "97.0\u00a0%"));
  EXPECT_FALSE(has(html, "nan"));
  expect_balanced(html);
}

TEST(Report, EmptyPartsAreLeftOut) {
  Report r;
  r.title = "empty";
  const std::string html = to_html(r);
  EXPECT_FALSE(has(html, "<table"));
  EXPECT_FALSE(has(html, "<svg"));
  expect_balanced(html);
}

TEST(Report, TablesOfText) {
  Report r;
  r.tables = {{"Layers <1>", "note & more", {"layer", "µs"}, {{"conv<1>", "1.5"}, {"fc", ""}}},
              {"bare", "", {"x"}, {}}};
  const std::string html = to_html(r);
  EXPECT_TRUE(has(html, "<h2>Layers &lt;1&gt;</h2>\n<p class=\"hint\">note &amp; more</p>"));
  EXPECT_TRUE(has(html, "<tr><th scope=\"row\">conv&lt;1&gt;</th><td>1.5</td></tr>"));
  EXPECT_TRUE(has(html, "<tr><th scope=\"row\">fc</th><td></td></tr>"));
  EXPECT_TRUE(has(html, "<h2>bare</h2>\n<div"));
  expect_balanced(html);
  r.tables[1].rows = {{"a", "b"}};
  expect_error<ValueError>([&] { to_html(r); }, "'bare' has 1 columns and a row of 2");
}

TEST(Report, ClassNamesMustFit) {
  Report r = sample();
  r.classes.push_back("third");
  expect_error<ValueError>([&] { to_html(r); }, "3 class names for 2 classes");
  r.classes.clear();
  expect_balanced(to_html(r));
}

TEST(Chart, SurvivesOddCurves) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const std::vector<double>& y : std::vector<std::vector<double>>{{},
                                                                       {1},
                                                                       {0, 0, 0},
                                                                       {nan, nan},
                                                                       {inf, 1, -inf},
                                                                       {-5, 5},
                                                                       {1e-9, 2e-9},
                                                                       {1e12, 3e12},
                                                                       std::vector<double>(5000, 0.5)}) {
    const std::string svg = detail::draw_chart({"t", "x", "y", {{"a", y}, {"b", {}}}}, 0);
    EXPECT_FALSE(has(svg, "nan")) << svg.substr(0, 300);
    EXPECT_FALSE(has(svg, "inf"));
    expect_balanced(svg);
  }
  const std::string gap = detail::draw_chart({"t", "x", "y", {{"a", {1, 2, nan, 3, 4}}}}, 0);
  const size_t d = gap.find(" d=\"") + 4;
  EXPECT_EQ(count(gap.substr(d, gap.find('"', d) - d), "M"), 2);  // the pen is lifted over the gap
}

// Where the points of a chart's first curve lie, left to right as they were given.
std::vector<double> places_of_points(const std::string& svg) {
  std::vector<double> places;
  for (size_t at = svg.find("cx=\""); at != std::string::npos; at = svg.find("cx=\"", at + 1))
    places.push_back(std::stod(svg.substr(at + 4)));
  return places;
}

TEST(Chart, PointsAtX) {
  Chart chart{"t", "bytes", "y", {{.name = "a", .y = {1, 2, 3}, .x = {4000, 1000, 2000}}}};
  std::string svg = detail::draw_chart(chart, 0);
  std::vector<double> at = places_of_points(svg);
  ASSERT_EQ(at.size(), 3u);
  EXPECT_NEAR((at[2] - at[1]) / (at[0] - at[1]), 1.0 / 3, 1e-3);
  EXPECT_TRUE(has(svg, ">2,000</text>")) << svg;
  EXPECT_TRUE(has(svg, "a, 4000: 1"));

  chart.log_x = true;
  svg = detail::draw_chart(chart, 0);
  at = places_of_points(svg);
  EXPECT_NEAR((at[2] - at[1]) / (at[0] - at[1]), 0.5, 1e-3);
  EXPECT_TRUE(has(svg, ">1,000</text>") && has(svg, ">2,000</text>") && !has(svg, ">4,000</text>")) << svg;

  chart.curves = {{.name = "few", .y = {1, 2}, .x = {0.01, 0.5}}, {.name = "one", .y = {3}, .x = {0.1}}};
  svg = detail::draw_chart(chart, 0);
  for (const char* tick : {">0.01<", ">0.02<", ">0.05<", ">0.1<", ">0.2<", ">0.5<"})
    EXPECT_TRUE(has(svg, tick)) << tick;
  expect_balanced(svg);
  chart.curves = {{.name = "one", .y = {3}, .x = {0.1}}};
  expect_balanced(detail::draw_chart(chart, 0));
}

TEST(Chart, RefusesOddX) {
  const double nan = std::nan("");
  const auto draw = [](std::vector<double> x, bool log_x) {
    Report r;
    r.charts = {{"t", "x", "y", {{.name = "line", .y = {1, 2}, .x = std::move(x)}}, log_x}};
    to_html(r);
  };
  expect_error<ValueError>([&] { draw({1}, false); }, "chart 't': 'line' has 1 x for 2 y");
  expect_error<ValueError>([&] { draw({1, nan}, false); }, "'line' has a point at x = nan");
  expect_error<ValueError>([&] { draw({0, 1}, true); }, "'line' has a point at x = 0");
  draw({0, 1}, false);
}

TEST(Chart, LongNamesTakeMoreRows) {
  Chart chart{"t", "x", "y", {}};
  for (int i = 0; i < 7; ++i) chart.curves.push_back({str("a curve of some long name, ", i), {1, 2}});
  const std::string svg = detail::draw_chart(chart, 0);
  const auto number = [&](const std::string& after, size_t from) {
    return std::stod(svg.substr(svg.find(after, from) + after.size()));
  };
  const double height = number("viewBox=\"0 0 560.0 ", 0);
  double last = 0;
  for (size_t at = svg.find(" key\""); at != std::string::npos; at = svg.find(" key\"", at + 1)) {
    const size_t line = svg.rfind("<line", at);
    EXPECT_LE(number("x2=\"", line), 560);
    last = std::max(last, number("y1=\"", line));
  }
  EXPECT_EQ(height, 330 + last - 12);  // the picture grows by what the names take
  EXPECT_GT(last, 12 + 2 * 19);
  expect_balanced(svg);
}

TEST(Report, Counts) {
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-123), "-123");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
}

TEST(Chart, RoundTicksWithinTheRange) {
  EXPECT_EQ(detail::axis_ticks(0, 1, 5), (std::vector<double>{0, 1 * 0.2, 2 * 0.2, 3 * 0.2, 4 * 0.2, 5 * 0.2}));
  EXPECT_EQ(detail::axis_ticks(1, 12, 8), (std::vector<double>{2, 4, 6, 8, 10, 12}));
  EXPECT_EQ(detail::axis_ticks(3, 3, 8), (std::vector<double>{3}));
  for (double v : detail::axis_ticks(-0.37, 0.91, 5)) EXPECT_TRUE(v >= -0.37 && v <= 0.91);
}

/// A PNG of 8 bits, grey or colour, without interlacing: [H, W, C] as integers. Checks every chunk's sum.
struct Picture {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<int> v;
};
Picture decode(const std::string& png) {
  const auto number = [](const std::string& s, size_t at) {
    uint32_t n = 0;
    for (size_t i = 0; i < 4; ++i) n = n << 8 | static_cast<unsigned char>(s.at(at + i));
    return n;
  };
  Picture p;
  std::string packed;
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  size_t at = 8;
  while (at + 12 <= png.size()) {
    const size_t size = number(png, at);
    const std::string kind = png.substr(at + 4, 4), data = png.substr(at + 8, size);
    const std::string summed = kind + data;
    EXPECT_EQ(crc32(0, reinterpret_cast<const Bytef*>(summed.data()), static_cast<uInt>(summed.size())),
              number(png, at + 8 + size));
    at += 12 + size;
    if (kind == "IHDR") {
      p = {.width = number(data, 0), .height = number(data, 4), .channels = data[9] == 2 ? 3 : 1, .v = {}};
      EXPECT_EQ(data.substr(8), std::string("\x8", 1) + (p.channels == 3 ? '\2' : '\0') + std::string(3, '\0'));
    }
    if (kind == "IDAT") packed += data;
    if (kind == "IEND") break;
  }
  EXPECT_EQ(at, png.size());
  const size_t stride = static_cast<size_t>(p.width * p.channels), n = static_cast<size_t>(p.channels);
  std::vector<unsigned char> raw((stride + 1) * static_cast<size_t>(p.height)), above(stride);
  uLongf length = raw.size();
  EXPECT_EQ(uncompress(raw.data(), &length, reinterpret_cast<const Bytef*>(packed.data()), packed.size()), Z_OK);
  EXPECT_EQ(length, raw.size());
  for (size_t y = 0; y < static_cast<size_t>(p.height); ++y) {
    unsigned char* row = raw.data() + y * (stride + 1);
    const int filter = *row++;
    for (size_t x = 0; x < stride; ++x) {
      const int a = x >= n ? row[x - n] : 0, b = above[x], c = x >= n ? above[x - n] : 0;
      const int da = std::abs(b - c), db = std::abs(a - c), dc = std::abs(a + b - 2 * c);
      const int paeth = da <= db && da <= dc ? a : db <= dc ? b : c;
      const int add[] = {0, a, b, (a + b) / 2, paeth};
      row[x] = static_cast<unsigned char>(row[x] + add[filter]);
    }
    above.assign(row, row + stride);
    p.v.insert(p.v.end(), row, row + stride);
  }
  return p;
}

TEST(Png, PixelsComeBack) {
  manual_seed(4);
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 3}, Shape{28, 28}, Shape{1, 9, 4}, Shape{3, 6, 7}, Shape{3, 1, 1}}) {
    const Tensor image = randint(0, 256, shape, u8);
    const Picture p = decode(encode_png(image));
    const std::vector<int64_t> v = image.to_vector<int64_t>();
    const int64_t h = shape[shape.ndim() - 2], w = shape[shape.ndim() - 1], channels = shape.ndim() == 3 ? shape[0] : 1;
    ASSERT_EQ((std::vector<int64_t>{p.height, p.width, p.channels}), (std::vector<int64_t>{h, w, channels}));
    for (int64_t i = 0; i < h * w; ++i)
      for (int64_t c = 0; c < channels; ++c)
        ASSERT_EQ(p.v[static_cast<size_t>(i * channels + c)], v[static_cast<size_t>(c * h * w + i)]) << i << " " << c;
  }
  // A floating image spans its own range: −2 → 0, 8 → 255, 3 → 127.5 and away from zero.
  const Tensor grey = tensor(std::vector<float>{-2, 8, 3, -1.9f}, {2, 2});
  EXPECT_EQ(decode(encode_png(grey)).v, (std::vector<int>{0, 255, 128, 3}));
  EXPECT_EQ(decode(encode_png(transpose(cast(grey, f64), 0, 1))).v, (std::vector<int>{0, 128, 255, 3}));
  EXPECT_EQ(decode(encode_png(full({2, 2}, 7.5))).v, (std::vector<int>{0, 0, 0, 0}));  // no range
  const Tensor colour = tensor(std::vector<float>{0, 1, 2, 3, 4, 5}, {3, 1, 2});
  EXPECT_EQ(decode(encode_png(colour)).v, (std::vector<int>{0, 102, 204, 51, 153, 255}));
}

TEST(Base64, RFC4648) {
  const std::pair<std::string, std::string> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"},
                                                         {"\xfb\xff\xbe", "+/++"}};
  for (const auto& [plain, coded] : vectors) EXPECT_EQ(detail::base64(plain), coded);
  EXPECT_EQ(detail::base64(std::string(1, '\0')), "AA==");
}

// PNG: the fixed parts, decoded by hand.
TEST(Png, HeaderAndErrors) {
  const std::string png = encode_png(tensor(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3}));
  ASSERT_GT(png.size(), 33u);
  EXPECT_EQ(png.substr(1, 3), "PNG");
  const auto big_endian = [&](size_t at) {
    return static_cast<unsigned char>(png[at + 3]) + 256 * static_cast<unsigned char>(png[at + 2]);
  };
  EXPECT_EQ(big_endian(16), 3);                    // width
  EXPECT_EQ(big_endian(20), 2);                    // height
  EXPECT_EQ(png[24], 8);                           // bits
  EXPECT_EQ(png[25], 0);                           // grey
  EXPECT_EQ(encode_png(zeros({3, 2, 2}))[25], 2);  // colour
  expect_error<ShapeError>([] { encode_png(zeros({2, 2, 2})); }, "[2, 2, 2]");
  expect_error<ShapeError>([] { encode_png(zeros({0, 2})); }, "[0, 2]");
  expect_error<DTypeError>([] { encode_png(zeros({2, 2}, i64)); }, "i64");
  expect_error<NumericError>([] { encode_png(full({2, 2}, std::nan(""))); }, "pixel");
}

TEST(Mistakes, SortedByConfidence) {
  const Tensor images = tensor(std::vector<float>{0, 0, 1, 1, 2, 2, 3, 3}, {4, 1, 2});
  const Tensor logits = tensor(std::vector<float>{2, 0, 0, 5, 3, 0, 0, 1}, {4, 2});
  const Tensor labels = tensor(std::vector<int64_t>{1, 0, 0, 0});
  const std::vector<Mistake> m = most_confident_mistakes(images, logits, labels, 2);
  ASSERT_EQ(m.size(), 2u);
  EXPECT_EQ(m[0].image.to_vector<double>(), (std::vector<double>{1, 1}));
  EXPECT_EQ(m[0].predicted, 1);
  EXPECT_EQ(m[0].label, 0);
  EXPECT_NEAR(m[0].confidence, 1 / (1 + std::exp(-5.0)), 1e-6);
  EXPECT_NEAR(m[1].confidence, 1 / (1 + std::exp(-2.0)), 1e-6);
  EXPECT_EQ(most_confident_mistakes(images, logits, labels, 9).size(), 3u);
  // Infinities: one takes all, two share, all of −∞ share; sorted all the same, ties in their order.
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor odd = tensor(std::vector<float>{inf, inf, -inf, 0, inf, 5, -inf, -inf, -inf, 1, inf, -inf}, {4, 3});
  const std::vector<Mistake> all = most_confident_mistakes(images, odd, tensor(std::vector<int64_t>{2, 2, 2, 0}), 9);
  std::vector<double> sure;
  for (const Mistake& mistake : all) sure.push_back(mistake.confidence);
  EXPECT_EQ(sure, (std::vector<double>{1, 1, 0.5, 1.0 / 3}));
  EXPECT_EQ(all[0].label, 2);
  EXPECT_EQ(all[1].label, 0);
  const double nan = std::nan("");
  expect_error<NumericError>([&] { most_confident_mistakes(images, full({4, 3}, nan), labels, 2); }, "NaN logit");
  expect_error<ShapeError>([&] { most_confident_mistakes(zeros({3, 1, 2}), logits, labels, 2); }, "[3, 1, 2]");
}

TEST(Results, OneObject) {
  Results r;
  r.job = "test \"job\"";
  r.figures.set("test_accuracy", 0.91).set("epochs", 12).set("bad", std::nan(""));
  r.settings.set("optimizer", "adam").set("flip", true);
  r.rows.emplace_back().set("name", "first").set("latency_us", 3.5f).set("latency_us", 4.5);
  const auto json = nlohmann::json::parse(to_json(r));
  EXPECT_EQ(json["job"], "test \"job\"");
  EXPECT_EQ(json["test_accuracy"], 0.91);
  EXPECT_EQ(json["epochs"], 12);
  EXPECT_TRUE(json["bad"].is_null());
  EXPECT_EQ(json["settings"]["optimizer"], "adam");
  EXPECT_EQ(json["settings"]["flip"], true);
  EXPECT_EQ(json["rows"][0]["latency_us"], 4.5);
  EXPECT_FALSE(json["machine"]["processor"].get<std::string>().empty());
  EXPECT_GE(json["machine"]["cores"].get<int>(), 1);
  EXPECT_FALSE(json["machine"]["simd"].get<std::string>().empty());
  EXPECT_TRUE(json["machine"]["versions"].contains("hone"));
  r.rows.emplace_back().set("latency_us", 3);
  expect_error<ValueError>([&] { to_json(r); }, "name");
}

TEST(Machine, PeakResidentSetGrows) {
  const int64_t before = peak_rss_bytes();
  EXPECT_GT(before, 1 << 20);
  std::vector<char> block(64 << 20, 1);
  EXPECT_GE(peak_rss_bytes(), before);
  EXPECT_GE(peak_rss_bytes() + block[5], 64 << 20);
}

}  // namespace
}  // namespace hone::train
