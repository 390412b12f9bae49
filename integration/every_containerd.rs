//! A test that is written once and runs on every release of containerd.

/// Makes three tests of each of these functions, which take the version: `NAME::on_containerd_1_6` and so on.
macro_rules! on_every_containerd {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::harness::containerd::Version;

            #[tokio::test]
            async fn on_containerd_1_6() {
                super::$test(Version::V1_6).await;
            }

            #[tokio::test]
            async fn on_containerd_1_7() {
                super::$test(Version::V1_7).await;
            }

            #[tokio::test]
            async fn on_containerd_2_1() {
                super::$test(Version::V2_1).await;
            }
        }
    )+};
}
