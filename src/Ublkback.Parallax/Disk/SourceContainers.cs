using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// The files that a disk's blocks are in: its own, and those of the VDIs that it was cloned from, which are opened when
/// they are first read. On the VDI's worker.
/// </summary>
/// <param name="own">Its own number.</param>
/// <param name="container">Its own file.</param>
/// <param name="open">Opens another's for reading. Runs on a helper thread.</param>
/// <param name="warn">Takes what people should know.</param>
[DataPath]
internal sealed class SourceContainers(
    uint own, IVdiContainer container, Func<uint, IVdiContainer> open, Action<string> warn) : IAsyncDisposable
{
    private readonly Dictionary<uint, (IVdiContainer Container, ImageAccess Access)> _open =
        new() { [own] = (container, new ImageAccess(container.Blocks)) };
    private readonly LoopMutex _opening = new();

    /// <summary>Reads a block, and compares its checksum.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> ReadCheckedAsync(MapEntry at, Memory<byte> block)
    {
        BlockStatus status = await ReadAsync(at.Address, block);
        return status == BlockStatus.Okay && !IsWhole(at, Crc32C.Of(block.Span)) ? BlockStatus.IoError : status;
    }

    /// <summary>Reads blocks that follow each other, which the caller checks.</summary>
    public ValueTask<BlockStatus> ReadAsync(BlockAddress first, Memory<byte> blocks)
    {
        SeamAssert.IsInside(
            VdiFormat.OffsetOf(first.Block), blocks.Length, VdiFormat.MaxContainerSize, "a VDI's container");
        return _open.TryGetValue(first.Vdi, out (IVdiContainer, ImageAccess Access) file)
            ? file.Access.RunAsync(BlockOperation.Read, VdiFormat.OffsetOf(first.Block), blocks.Length, blocks)
            : OpenAndReadAsync(first, blocks);
    }

    /// <summary>Whether a block's checksum is right; says so aloud when it is not.</summary>
    public bool IsWhole(MapEntry at, uint crc)
    {
        if (crc == at.Crc) return true;
        warn($"{_open[at.Address.Vdi].Container.Path}: block {at.Address.Block} is damaged: its checksum is {crc:x8} "
            + $"and was {at.Crc:x8}; see 'ublkback vdi fsck'");
        return false;
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync() // off the path: the end
    {
        foreach ((IVdiContainer file, _) in _open.Values) await file.DisposeAsync().ConfigureAwait(false);
    }

    // off the path: once for each VDI
    private async ValueTask<BlockStatus> OpenAndReadAsync(BlockAddress first, Memory<byte> blocks)
    {
        if (first.IsLost)
        {
            warn($"{container.Path}: a block is read that was damaged, and given up by 'ublkback vdi fsck --repair'");
            return BlockStatus.IoError;
        }

        await _opening.EnterAsync();
        try
        {
            if (!_open.ContainsKey(first.Vdi))
            {
                IVdiContainer other = await Task.Run(() => open(first.Vdi));
                _open.Add(first.Vdi, (other, new ImageAccess(other.Blocks)));
            }
        }
        catch (TargetException failure)
        {
            warn($"{container.Path}: {first} cannot be read: {failure.Message}");
            return BlockStatus.IoError;
        }
        finally
        {
            _opening.Leave();
        }

        return await ReadAsync(first, blocks);
    }
}
