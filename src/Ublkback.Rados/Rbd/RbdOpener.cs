using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Rbd;

/// <summary>
/// Opens images of RBD: <c>rbd:POOL/IMAGE</c>, or <c>rbd:POOL/IMAGE@SNAPSHOT</c> for reading. Options:
/// <c>conf=/path</c>, <c>id=USER</c>.
/// </summary>
public static class RbdOpener
{
    /// <summary>The scheme of targets.</summary>
    public const string Scheme = "rbd";

    private const int PhysicalSectorSize = 4096;

    /// <summary>Opens an image. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        target.AllowOnly(RadosAddress.ConfigurationOption, RadosAddress.IdOption);
        if (target.Location.Split('/') is not [{ Length: > 0 } poolName, { Length: > 0 } spec]
            || spec.Split('@') is not ([{ Length: > 0 }] or [{ Length: > 0 }, { Length: > 0 }]))
            throw new TargetException(
                $"{Scheme}:{target.Location} names no image",
                $"write {Scheme}:POOL/IMAGE or {Scheme}:POOL/IMAGE@SNAPSHOT");
        string text = $"{Scheme}:{target.Location}";
        string? snapshot = spec.Split('@') is [_, string at] ? at : null;
        if (snapshot is not null && !opening.IsReadOnly)
            throw new TargetException(
                $"{text} is a snapshot, which is never written", "attach it read-only (access=ro)");
        RadosPool pool = RadosPool.Open(RadosAddress.Of(poolName, target.Options), waitsIfFull: true, isAlone: true);
        try
        {
            nint image = Open(pool, spec.Split('@')[0], snapshot, text, opening.IsReadOnly);
            try
            {
                return new RbdImage(pool, text, image, Measure(image, text, opening), opening.Warn);
            }
            catch
            {
                _ = LibRbd.Close(image);
                throw;
            }
        }
        catch (Exception failure)
        {
            pool.Dispose();
            throw failure switch
            {
                RadosException => new TargetException(failure.Message, failure),
                DllNotFoundException => new TargetException(
                    "librbd.so.1 is not on this host", "install it (Debian: apt-get install librbd1)", failure),
                _ => failure,
            };
        }
    }

    private static nint Open(RadosPool pool, string name, string? snapshot, string text, bool isReadOnly)
    {
        nint image;
        int result = isReadOnly
            ? LibRbd.OpenReadOnly(pool.Handle, name, out image, snapshot)
            : LibRbd.Open(pool.Handle, name, out image, snapshot);
        if (result == -LinuxError.NoEntry)
            throw new TargetException($"{text} is not there", $"see 'rbd ls {pool.Name}'");
        RadosException.Check(result, $"{text} cannot be opened");
        return image;
    }

    private static ImageGeometry Measure(nint image, string text, ImageOpening opening)
    {
        RadosException.Check(LibRbd.GetSize(image, out ulong size), $"the size of {text} cannot be had");
        if (size < BlockRequest.SectorSize) throw new TargetException($"{text} has {size} bytes: that is no disk");
        if (size % BlockRequest.SectorSize != 0)
            throw new TargetException(
                $"{text} has {size} bytes, not a multiple of {BlockRequest.SectorSize}: its end could not be read",
                "enlarge it with 'rbd resize'");
        if (!opening.IsReadOnly) Lock(image, text);
        return new ImageGeometry(
            size / BlockRequest.SectorSize, BlockRequest.SectorSize, PhysicalSectorSize, opening.IsReadOnly,
            opening.IsReadOnly || !opening.AllowsDiscard ? 0 : PhysicalSectorSize);
    }

    // RBD shuts out who had the lock and does not answer any more.
    private static void Lock(nint image, string text)
    {
        RadosException.Check(LibRbd.GetFeatures(image, out ulong features), $"the features of {text} cannot be had");
        if ((features & LibRbd.ExclusiveLockFeature) == 0)
            throw new TargetException($"{text} has no exclusive lock, so that two hosts could write it: 'rbd feature "
                + "enable' it, or attach it read-only (access=ro)");
        int result = LibRbd.Lock(image, LibRbd.Exclusive);
        if (result is -LinuxError.Busy or -LinuxError.ReadOnlyFileSystem)
            throw new ImageInUseException(
                $"{text} is in use by another client of Ceph", "see 'rbd lock ls' and 'rbd status'");
        RadosException.Check(result, $"{text} cannot be locked");
    }
}
