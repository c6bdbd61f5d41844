using Ublkback.Block;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// A store has no VDI of a name. What goes through all VDIs leaves out those that were deleted meanwhile.
/// </summary>
internal sealed class NoSuchVdiException(string name, string store)
    : TargetException($"there is no VDI {name} in {store}", "see 'ublkback vdi list'");
