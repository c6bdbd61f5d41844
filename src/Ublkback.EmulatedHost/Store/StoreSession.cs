using System.Buffers;
using System.Collections.Immutable;
using System.Globalization;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Threading.Channels;
using Ublkback.XenStore;

namespace Ublkback.EmulatedHost.Store;

/// <summary>One connection to the emulated store, acting for one domain.</summary>
internal sealed class StoreSession : IDisposable
{
    // A client that does not read its events is cut off rather than kept in memory.
    private const int MaxUnsent = 65536;

    private readonly StoreServer _server;
    private readonly NetworkStream _stream;
    private readonly Dictionary<uint, StoreTree> _transactions = [];
    private readonly List<(string Path, string Token, string Shown)> _watches = [];
    private readonly Channel<byte[]> _unsent = Channel.CreateBounded<byte[]>(MaxUnsent);
    private uint _lastTransaction;

    public StoreSession(StoreServer server, Socket socket, int domid)
    {
        _server = server;
        _stream = new NetworkStream(socket, ownsSocket: true);
        Domid = domid;
    }

    public int Domid { get; }

    private string Home => string.Create(CultureInfo.InvariantCulture, $"/local/domain/{Domid}");

    public void Start()
    {
        _ = Task.Run(SendAsync);
        _ = Task.Run(ReceiveAsync);
    }

    public void Dispose()
    {
        _unsent.Writer.TryComplete();
        _stream.Dispose();
    }

    /// <summary>Sends events to the watches that a change touches. Under the server's lock.</summary>
    public void Fire(string path, bool isRemoval)
    {
        foreach ((string watched, string token, string shown) in _watches)
        {
            if (path == watched || path.StartsWith(watched == "/" ? "/" : watched + "/", StringComparison.Ordinal))
                SendEvent(
                    string.Concat(shown, path.AsSpan(watched == "/" && shown == "/" ? 1 : watched.Length)), token);
            else if (isRemoval && watched.StartsWith(path + "/", StringComparison.Ordinal))
                SendEvent(shown, token);
        }
    }

    private async Task SendAsync()
    {
        try
        {
            await foreach (byte[] message in _unsent.Reader.ReadAllAsync().ConfigureAwait(false))
                await _stream.WriteAsync(message).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or ObjectDisposedException)
        {
            // The client is gone.
        }
    }

    private async Task ReceiveAsync()
    {
        PipeReader reader = PipeReader.Create(_stream);
        try
        {
            while (true)
            {
                ReadResult result = await reader.ReadAsync().ConfigureAwait(false);
                ReadOnlySequence<byte> buffer = result.Buffer;
                while (XenStoreCodec.TryRead(ref buffer, out XenStoreMessage message)) Answer(message);
                if (result.IsCompleted) break;
                reader.AdvanceTo(buffer.Start, buffer.End);
            }
        }
        catch (Exception failure) when (failure is IOException or ObjectDisposedException or InvalidDataException)
        {
            // The client is gone, or talks nonsense.
        }

        _server.Remove(this);
        Dispose();
    }

    private void Answer(XenStoreMessage message)
    {
        lock (_server.Lock)
        {
            try
            {
                byte[] reply = Handle(message, XenStoreCodec.SplitStrings(message.Payload));
                if (message.Header.Type == XenStoreMessageType.Watch) return; // answered before its first event
                Send(message.Header, message.Header.Type, reply);
            }
            catch (StoreException failure)
            {
                Send(message.Header, XenStoreMessageType.Error, XenStoreCodec.Strings(failure.Message));
            }
        }
    }

    private byte[] Handle(XenStoreMessage message, string[] arguments)
    {
        string first = arguments is [string text, ..] ? text : "";
        switch (message.Header.Type)
        {
            case XenStoreMessageType.Read:
                return View(message).Get(Absolute(first)).Value;
            case XenStoreMessageType.Directory:
                byte[] names = XenStoreCodec.Strings([.. View(message).Get(Absolute(first)).Children]);
                return names.Length <= XenStoreHeader.MaxPayload ? names : throw new StoreException("E2BIG");
            case XenStoreMessageType.DirectoryPart:
                return ListPart(
                    View(message).Get(Absolute(first)), int.Parse(arguments[1], CultureInfo.InvariantCulture));
            case XenStoreMessageType.GetPermissions:
                return XenStoreCodec.Strings([.. View(message).Get(Absolute(first)).Permissions.Select(
                    permission =>
                        string.Create(CultureInfo.InvariantCulture, $"{permission.Access}{permission.Domid}"))]);
            case XenStoreMessageType.Write:
                int end = Array.IndexOf(message.Payload, (byte)0);
                if (end < 0) throw new StoreException("EINVAL");
                return Change(message, tree => tree.Write(Absolute(first), message.Payload[(end + 1)..]));
            case XenStoreMessageType.MakeDirectory:
                return Change(message, tree => tree.MakeDirectory(Absolute(first)));
            case XenStoreMessageType.Remove:
                return Change(message, tree => tree.Remove(Absolute(first)));
            case XenStoreMessageType.SetPermissions:
                ImmutableArray<StorePermission> permissions = [.. arguments.Skip(1).Select(ParsePermission)];
                if (permissions.IsEmpty) throw new StoreException("EINVAL");
                return Change(message, tree => tree.SetPermissions(Absolute(first), permissions));
            case XenStoreMessageType.TransactionStart:
                _transactions[++_lastTransaction] = new StoreTree(_server.Nodes, Domid);
                return XenStoreCodec.Strings(_lastTransaction.ToString(CultureInfo.InvariantCulture));
            case XenStoreMessageType.TransactionEnd:
                if (!_transactions.Remove(message.Header.Transaction, out StoreTree? ended))
                    throw new StoreException("ENOENT");
                if (first == "T" && !_server.TryCommit(ended)) throw new StoreException("EAGAIN");
                return Done;
            case XenStoreMessageType.Watch:
                Watch(
                    message.Header, first,
                    arguments is [_, string token, ..] ? token : throw new StoreException("EINVAL"));
                return Done;
            case XenStoreMessageType.Unwatch:
                string watched = Absolute(first);
                return _watches.RemoveAll(watch => watch.Path == watched && watch.Token == arguments[1]) > 0
                    ? Done
                    : throw new StoreException("ENOENT");
            case XenStoreMessageType.ResetWatches:
                _watches.Clear();
                _transactions.Clear();
                return Done;
            case XenStoreMessageType.GetDomainPath:
                return XenStoreCodec.Strings(
                    string.Create(CultureInfo.InvariantCulture, $"/local/domain/{ParseDomid(first)}"));
            case XenStoreMessageType.IsDomainIntroduced:
                return XenStoreCodec.Strings(_server.IsIntroduced(ParseDomid(first)) ? "T" : "F");
            case XenStoreMessageType.Introduce:
                RequirePrivilege();
                _server.Introduce(ParseDomid(first));
                return Done;
            case XenStoreMessageType.Release:
                RequirePrivilege();
                _server.ReleaseDomain(ParseDomid(first));
                return Done;
            default:
                throw new StoreException("ENOSYS");
        }
    }

    private static byte[] Done => XenStoreCodec.Strings("OK");

    private static int ParseDomid(string text) =>
        ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ushort domid)
            ? domid
            : throw new StoreException("EINVAL");

    private static StorePermission ParsePermission(string text) =>
        text is ['n' or 'r' or 'w' or 'b', ..]
            ? new StorePermission(text[0], ParseDomid(text[1..]))
            : throw new StoreException("EINVAL");

    private static byte[] ListPart(StoreNode node, int offset)
    {
        const int MaxPart = 1024;
        byte[] generation = XenStoreCodec.Strings(node.GetHashCode().ToString(CultureInfo.InvariantCulture));
        byte[] names = [.. XenStoreCodec.Strings([.. node.Children]), 0];
        if (offset > names.Length) throw new StoreException("EINVAL");
        int length = Math.Min(MaxPart, names.Length - offset);
        // A part ends with a whole name, the last part with an empty one.
        if (offset + length < names.Length)
            length = Array.LastIndexOf(names, (byte)0, offset + length - 1, length) - offset + 1;
        return [.. generation, .. names.AsSpan(offset, length)];
    }

    private void RequirePrivilege()
    {
        if (Domid != 0) throw new StoreException("EACCES");
    }

    private string Absolute(string path)
    {
        if (path.StartsWith('@')) return path;
        string absolute = path.StartsWith('/') ? path : $"{Home}/{path}";
        bool isValid = absolute.Length <= XenStoreHeader.MaxAbsolutePath
            && (absolute == "/" || (!absolute.EndsWith('/') && !absolute.Contains("//", StringComparison.Ordinal)))
            && absolute.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '/' or '_' or '@' or ':' or '.' or '+');
        return isValid ? absolute : throw new StoreException("EINVAL");
    }

    private StoreTree View(XenStoreMessage message) =>
        message.Header.Transaction == 0
            ? new StoreTree(_server.Nodes, Domid)
            : _transactions.GetValueOrDefault(message.Header.Transaction) ?? throw new StoreException("ENOENT");

    private byte[] Change(XenStoreMessage message, Action<StoreTree> change)
    {
        StoreTree tree = View(message);
        change(tree);
        if (message.Header.Transaction == 0) _server.TryCommit(tree);
        return Done;
    }

    private void Watch(XenStoreHeader header, string path, string token)
    {
        string absolute = Absolute(path);
        if (_watches.Exists(watch => watch.Path == absolute && watch.Token == token))
            throw new StoreException("EEXIST");
        _watches.Add((absolute, token, path));
        Send(header, XenStoreMessageType.Watch, Done);
        SendEvent(path, token);
    }

    private void SendEvent(string path, string token) =>
        Send(default, XenStoreMessageType.WatchEvent, XenStoreCodec.Strings(path, token));

    private void Send(XenStoreHeader request, XenStoreMessageType type, byte[] payload)
    {
        ArrayBufferWriter<byte> message = new(XenStoreHeader.Size + payload.Length);
        XenStoreCodec.Write(message, type, request.RequestId, request.Transaction, payload);
        if (!_unsent.Writer.TryWrite(message.WrittenSpan.ToArray())) Dispose();
    }
}
