using Ublkback.Block;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// A lock of a store. Where it can be lost by who is stopped for long, what is changed under it is refused then, and
/// what was only read is to be checked afterwards. Any thread; blocks it.
/// </summary>
internal interface IStoreLock : IDisposable
{
    /// <summary>Makes sure that nobody else has had the lock since it was taken.</summary>
    /// <exception cref="TargetException">Somebody has.</exception>
    void Check();
}
