#include <gtest/gtest.h>

#include <limits>

#include "matrix_text.h"
#include "text.h"

namespace polyhead::cli {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr Terminal kAscii = {.width = 40, .colour = false, .unicode = false};

TEST(Text, NearestIsNearOrNothing) {
  const std::vector<std::string> choices = {"--query", "--key", "--num-heads"};
  EXPECT_EQ(nearest("--num-head", choices), "--num-heads");
  EXPECT_EQ(nearest("--qurey", choices), "--query");
  EXPECT_EQ(nearest("--frobnicate", choices), "");
  EXPECT_EQ(nearest(std::string(1'000'000, 'x'), choices), "");
}

TEST(Text, AMessageLosesItsFunctionAndNoFile) {
  EXPECT_EQ(without_function("load_npy: q.npy: cannot open"), "q.npy: cannot open");
  EXPECT_EQ(without_function("MultiheadAttention::load: w: num_heads: got 3"),
            "w: num_heads: got 3");
  EXPECT_EQ(without_function("b/garb.npy: cannot open"), "b/garb.npy: cannot open");
  EXPECT_EQ(without_function("the double reference: too large"), "the double reference: too large");
  EXPECT_EQ(without_function("no colon"), "no colon");
}

TEST(Text, CountsAndWidths) {
  EXPECT_EQ(counted(1, "query", "queries"), "1 query");
  EXPECT_EQ(counted(0, "query", "queries"), "0 queries");
  EXPECT_EQ(display_width("W\u1d40 \u00b7"), 4);
  EXPECT_EQ(replaced("a-b-c", "-", "--"), "a--b--c");
}

TEST(MatrixText, SmallMatricesAreNumbersInColumns) {
  const Matrix matrix{2, 3, {1, -0.5, 10, 0.25, -kInf, 3}};
  EXPECT_EQ(matrix_text(matrix, kAscii, 2, Picture::kYes),
            "   1.00  -0.50  10.00\n"
            "   0.25   -inf   3.00\n");
}

TEST(MatrixText, HugeAndTinyNumbersHavePowersOfTen) {
  EXPECT_EQ(matrix_text({1, 2, {1e9, 2.5}}, kAscii, 0, Picture::kNo), "1.000e+09  2.500e+00\n");
  EXPECT_EQ(matrix_text({1, 2, {1e-9, 0}}, kAscii, 0, Picture::kNo), "1.000e-09  0.000e+00\n");
}

TEST(MatrixText, WideMatricesAreACornerAndAPicture) {
  Matrix matrix{2, 30, std::vector<double>(60)};
  matrix.numbers[31] = 1;
  EXPECT_EQ(matrix_text(matrix, kAscii, 0, Picture::kYes),
            "0.0000  0.0000  0.0000  0.0000  ...\n"
            "0.0000  1.0000  0.0000  0.0000  ...\n"
            "\" \" 0  to  \"@\" 1\n"
            "|                              |\n"
            "| @                            |\n");
}

TEST(MatrixText, APictureKeepsAPeakOfManyCells) {
  Matrix matrix{1, 1000, std::vector<double>(1000)};
  matrix.numbers[999] = 1;
  const std::string text = matrix_text(matrix, kAscii, 0, Picture::kYes);
  EXPECT_NE(text.find(" @|\n"), std::string::npos) << text;
  EXPECT_NE(text.find("the largest of each cell"), std::string::npos) << text;
}

TEST(MatrixText, PicturesMarkMaskedAndNan) {
  Matrix matrix{1, 50, std::vector<double>(50, 1.0)};
  matrix.numbers[0] = -kInf;
  matrix.numbers[49] = std::numeric_limits<double>::quiet_NaN();
  const std::string text = matrix_text(matrix, {.width = 80}, 0, Picture::kYes);
  EXPECT_NE(text.find("|x@"), std::string::npos) << text;
  EXPECT_NE(text.find("@?|"), std::string::npos) << text;
}

TEST(MatrixText, EmptyMatrices) {
  EXPECT_EQ(matrix_text({0, 3, {}}, kAscii, 2, Picture::kYes), "  (empty)\n");
  EXPECT_EQ(gallery_text({}, {}, kAscii, 2), "");
}

TEST(MatrixText, AGalleryWrapsAtTheWidth) {
  const Matrix matrix{1, 10, std::vector<double>(10, 0.5)};
  const std::string text = gallery_text({matrix, matrix, matrix, matrix},
                                        {"head 1", "head 2", "head 3", "head 4"}, kAscii, 0);
  EXPECT_EQ(text,
            "\"@\" 0.5\n"
            "head 1        head 2        head 3\n"
            "|@@@@@@@@@@|  |@@@@@@@@@@|  |@@@@@@@@@@|\n"
            "head 4\n"
            "|@@@@@@@@@@|\n");
}

}  // namespace
}  // namespace polyhead::cli
