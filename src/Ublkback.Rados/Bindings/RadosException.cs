using Ublkback.Linux.Kernel;

namespace Ublkback.Rados.Bindings;

/// <summary>A call of librados or librbd failed.</summary>
/// <param name="errno">The error number, above zero.</param>
/// <param name="what">What was tried, for people to read.</param>
#pragma warning disable CA1032 // it is made of an error number only
public sealed class RadosException(int errno, string what) : IOException($"{what}: {Describe(errno)}")
#pragma warning restore CA1032
{
    /// <summary>The error number.</summary>
    public int Errno => errno;

    /// <summary>The text of an error number, which of Ceph means something else now and then.</summary>
    public static string Describe(int errno) => errno == LinuxError.ShutOut
        ? "the Ceph cluster has shut this connection out (see 'ceph osd blocklist ls')"
        : LinuxError.Describe(errno);

    /// <summary>Throws when a result is an error; gives it back when it is none.</summary>
    public static int Check(int result, string what) => result < 0 ? throw new RadosException(-result, what) : result;
}
