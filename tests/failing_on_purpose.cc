// Fails, always. `./dev test` runs it through ctest and demands that the failure is noticed: a
// runner that cannot fail proves nothing.
#include <gtest/gtest.h>

TEST(FailingOnPurpose, IsNoticed) { EXPECT_EQ(1, 2) << "on purpose: the runner must see this"; }
