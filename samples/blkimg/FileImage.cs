using Microsoft.Win32.SafeHandles;
using Ublkback.Block;

namespace BlkImg;

/// <summary>A disk in a file, in as few lines as it takes; see <c>raw:</c> for what a good one needs.</summary>
internal sealed class FileImage(string path, bool isReadOnly) : IBlockImage
{
    private readonly SafeFileHandle _file =
        File.OpenHandle(
            path, FileMode.Open, isReadOnly ? FileAccess.Read : FileAccess.ReadWrite, FileShare.Read,
            FileOptions.Asynchronous);

    public ImageGeometry Geometry { get; } = new((ulong)new FileInfo(path).Length / 512, 512, 512, isReadOnly);

    public string Identity => path;

    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        try
        {
            if (request.Operation == BlockOperation.Read) await RandomAccess.ReadAsync(_file, request.Data, offset);
            else if (request.Operation == BlockOperation.Write)
                await RandomAccess.WriteAsync(_file, request.Data, offset);
            else if (request.Operation == BlockOperation.Flush) await Task.Run(() => RandomAccess.FlushToDisk(_file));
            else return BlockStatus.Unsupported;
            return BlockStatus.Okay;
        }
        catch (IOException)
        {
            return BlockStatus.IoError;
        }
    }

    public ValueTask DisposeAsync()
    {
        _file.Dispose();
        return default;
    }
}
