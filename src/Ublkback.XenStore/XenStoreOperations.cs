using System.Globalization;

namespace Ublkback.XenStore;

/// <summary>The requests of <see cref="IXenStore"/>, for a transaction id (0: none).</summary>
internal sealed class XenStoreOperations(
    Func<XenStoreMessageType, uint, byte[], string, Task<byte[]>> request, uint transaction) : IXenStore
{
    public async Task<string?> ReadAsync(string path)
    {
        try
        {
            byte[] value = await Ask(XenStoreMessageType.Read, path, path).ConfigureAwait(false);
            return XenStoreCodec.Decode(value);
        }
        catch (XenStoreException failure) when (failure.Error == XenStoreError.NoEntry)
        {
            return null;
        }
    }

    public Task WriteAsync(string path, string value) =>
        request(
            XenStoreMessageType.Write, transaction,
            [.. XenStoreCodec.Strings(path), .. XenStoreCodec.Encode(value)], path);

    public Task MakeDirectoryAsync(string path) => Ask(XenStoreMessageType.MakeDirectory, path, path);

    public async Task RemoveAsync(string path)
    {
        try
        {
            await Ask(XenStoreMessageType.Remove, path, path).ConfigureAwait(false);
        }
        catch (XenStoreException failure) when (failure.Error == XenStoreError.NoEntry)
        {
            // Gone already.
        }
    }

    public async Task<string[]?> ListAsync(string path)
    {
        try
        {
            return XenStoreCodec.SplitStrings(
                await Ask(XenStoreMessageType.Directory, path, path).ConfigureAwait(false));
        }
        catch (XenStoreException failure) when (failure.Error == XenStoreError.NoEntry)
        {
            return null;
        }
        catch (XenStoreException failure) when (failure.Error == XenStoreError.TooBig)
        {
            return await ListPartsAsync(path).ConfigureAwait(false);
        }
    }

    public async Task<string[]> GetPermissionsAsync(string path) =>
        XenStoreCodec.SplitStrings(await Ask(XenStoreMessageType.GetPermissions, path, path).ConfigureAwait(false));

    public Task SetPermissionsAsync(string path, params string[] permissions) =>
        Ask(XenStoreMessageType.SetPermissions, path, [path, .. permissions]);

    // A part is the node's generation, zero, then names; the last part ends with an empty name. A changed generation
    // means that the list changed between parts.
    private async Task<string[]> ListPartsAsync(string path)
    {
        List<byte> names = [];
        string? generation = null;
        while (true)
        {
            string offset = names.Count.ToString(CultureInfo.InvariantCulture);
            byte[] part = await Ask(XenStoreMessageType.DirectoryPart, path, path, offset).ConfigureAwait(false);
            int end = Array.IndexOf(part, (byte)0);
            if (end < 0) throw new XenStoreException(XenStoreError.Io, $"a malformed part of {path}");
            string current = XenStoreCodec.Decode(part.AsSpan(0, end));
            if (generation is not null && generation != current)
            {
                names.Clear();
                generation = null;
                continue;
            }

            generation = current;
            ReadOnlySpan<byte> content = part.AsSpan(end + 1);
            bool isLast = content.IsEmpty || content is [0] || content is [.., 0, 0];
            names.AddRange(isLast ? content[..^Math.Min(1, content.Length)] : content);
            if (isLast) return XenStoreCodec.SplitStrings(names.ToArray());
        }
    }

    private Task<byte[]> Ask(XenStoreMessageType type, string subject, params string[] arguments) =>
        request(type, transaction, XenStoreCodec.Strings(arguments), subject);
}
