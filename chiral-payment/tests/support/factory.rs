//! The factory of contracts, for chains that do not have it in their first block.

/// Its code (<https://github.com/Arachnid/deterministic-deployment-proxy>).
pub(crate) const FACTORY_CODE: &str = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe0\
    3601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3";
